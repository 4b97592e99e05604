# floatllm_write_sbom(): a CycloneDX bill of materials for a wheel's metadata (PEP 770). Like the manifest it
# holds no time and no path.
include_guard(GLOBAL)

function(floatllm_write_sbom file distribution)
    # ggml is part of llama.cpp's tree, and of another state than ggml's own tag of that version.
    set(source "pkg:generic/llama.cpp@${FLOATLLM_LLAMA_RELEASE}")
    if(FLOATLLM_TREE_PINNED)
        set(source "pkg:github/ggml-org/llama.cpp@${FLOATLLM_LLAMA_RELEASE}")
    endif()
    set(own "pkg:pypi/${distribution}@${PROJECT_VERSION}")
    set(mit "[{\"license\": {\"id\": \"MIT\"}}]")
    set(json "{\"$schema\": \"http://cyclonedx.org/schema/bom-1.6.schema.json\", \"bomFormat\": \"CycloneDX\", \
\"specVersion\": \"1.6\", \"version\": 1}")
    string(JSON json SET "${json}" metadata "{\"component\": {\"type\": \"library\", \"bom-ref\": \"${own}\", \
\"name\": \"${distribution}\", \"version\": \"${PROJECT_VERSION}\", \"purl\": \"${own}\", \"licenses\": ${mit}}}")
    string(JSON json SET "${json}" components "[{\"type\": \"library\", \"bom-ref\": \"${source}\", \
\"name\": \"llama.cpp\", \"version\": \"${FLOATLLM_LLAMA_RELEASE}\", \"purl\": \"${source}\", \"licenses\": ${mit}, \
\"properties\": [{\"name\": \"floatllm:tree_sha256\", \"value\": \"${FLOATLLM_TREE_SHA256}\"}, \
{\"name\": \"floatllm:ggml_version\", \"value\": \"${FLOATLLM_GGML_VERSION}\"}]}]")
    string(JSON json SET "${json}" dependencies "[{\"ref\": \"${own}\", \"dependsOn\": [\"${source}\"]}]")
    floatllm_write_changed("${file}" "${json}\n")
endfunction()
