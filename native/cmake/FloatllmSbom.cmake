# floatllm_write_sbom(): a CycloneDX bill of materials for a wheel's metadata (PEP 770). Like the manifest it
# holds no time and no path.
include_guard(GLOBAL)

function(floatllm_write_sbom file distribution)
    set(ggml_source "unpinned")
    if(FLOATLLM_GGML_PINNED)
        set(ggml_source "pkg:github/ggml-org/ggml@${FLOATLLM_GGML_COMMIT}")
    else()
        set(ggml_source "pkg:generic/ggml@${FLOATLLM_GGML_VERSION}")
    endif()
    set(own "pkg:pypi/${distribution}@${PROJECT_VERSION}")
    set(mit "[{\"license\": {\"id\": \"MIT\"}}]")
    set(json "{\"$schema\": \"http://cyclonedx.org/schema/bom-1.6.schema.json\", \"bomFormat\": \"CycloneDX\", \
\"specVersion\": \"1.6\", \"version\": 1}")
    string(JSON json SET "${json}" metadata "{\"component\": {\"type\": \"library\", \"bom-ref\": \"${own}\", \
\"name\": \"${distribution}\", \"version\": \"${PROJECT_VERSION}\", \"purl\": \"${own}\", \"licenses\": ${mit}}}")
    string(JSON json SET "${json}" components "[{\"type\": \"library\", \"bom-ref\": \"${ggml_source}\", \
\"name\": \"ggml\", \"version\": \"${FLOATLLM_GGML_VERSION}\", \"purl\": \"${ggml_source}\", \"licenses\": ${mit}, \
\"properties\": [{\"name\": \"floatllm:tree_sha256\", \"value\": \"${FLOATLLM_GGML_TREE_SHA256}\"}]}]")
    string(JSON json SET "${json}" dependencies "[{\"ref\": \"${own}\", \"dependsOn\": [\"${ggml_source}\"]}]")
    floatllm_write_changed("${file}" "${json}\n")
endfunction()
