// Runs a model within a budget, and writes the logits that follow a prompt and each token after it.
//
//   engine_run MODEL OUT BUDGET_BYTES [POSITIONS PROMPT TOKENS THREADS direct|windows]
//
// Prints how the budget was shared out, as JSON.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/model.h"
#include "error.h"

using namespace floatllm;

namespace {

int run(int argc, char **argv) {
    const auto number = [argc, argv](int index, uint64_t otherwise) {
        return index < argc ? std::strtoull(argv[index], nullptr, 10) : otherwise;
    };
    engine::Request request;
    request.budget = number(3, 0);
    request.positions = static_cast<uint32_t>(number(4, 0));
    request.threads = static_cast<unsigned>(number(7, 2));
    request.io = argc > 8 && std::strcmp(argv[8], "windows") == 0 ? stream::Io::Windows : stream::Io::Direct;
    const engine::Model model(argv[1], request);
    const engine::Shares &shares = model.shares();
    const auto print = [](const char *name, uint64_t value) {
        std::printf("\"%s\": %llu, ", name, static_cast<unsigned long long>(value));
    };
    std::printf("{");
    print("positions", shares.positions);
    print("width", shares.width);
    print("own", shares.demand.own);
    print("context", shares.demand.context);
    print("compute", shares.demand.compute);
    print("slots", shares.slots);
    print("slot_bytes", shares.slot_bytes);
    print("kept", shares.kept);

    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model.llama()));
    std::vector<llama_token> tokens;
    for (uint64_t i = 0; i < number(5, 12); ++i) {
        tokens.push_back(static_cast<llama_token>((7919 * i + 5) % static_cast<uint64_t>(vocabulary)));
    }
    std::FILE *out = std::fopen(argv[2], "wb");
    if (out == nullptr) {
        return 1;
    }
    for (uint64_t step = 0; step <= number(6, 4); ++step) {
        for (size_t begin = 0; begin < tokens.size(); begin += shares.width) {
            const size_t count = std::min<size_t>(shares.width, tokens.size() - begin);
            if (llama_decode(model.context(),
                             llama_batch_get_one(tokens.data() + begin, static_cast<int32_t>(count))) != 0) {
                std::fclose(out);
                throw Error(FLOATLLM_ERROR_ENGINE, model.device().take_failure());
            }
        }
        const float *logits = llama_get_logits_ith(model.context(), -1);
        std::fwrite(logits, sizeof(float), static_cast<size_t>(vocabulary), out);
        tokens = {static_cast<llama_token>(std::max_element(logits, logits + vocabulary) - logits)};
    }
    std::fclose(out);
    print("read", model.device().count().read);
    std::printf("\"kept_bytes\": %llu}\n", static_cast<unsigned long long>(model.device().kept_bytes()));
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 4) {
        std::fprintf(stderr, "engine_run MODEL OUT BUDGET_BYTES [...]\n");
        return 1;
    }
    try {
        return run(argc, argv);
    } catch (const Error &reason) {
        std::fprintf(stderr, "%s\n", reason.what());
        return static_cast<int>(reason.status());
    }
}
