# Adds libllama of the tree that FloatllmGgml found, on the ggml that is there already, as we patch it.
#
# Output: target llama
include_guard(GLOBAL)

# Its folder asks for these two: a version for a header, and its own warnings, which are its authors' to read.
foreach(part MAJOR MINOR PATCH)
    file(STRINGS "${FLOATLLM_LLAMA_SOURCE}/CMakeLists.txt" line REGEX "^set\\(LLAMA_VERSION_${part} +[0-9]+\\)")
    string(REGEX REPLACE ".* ([0-9]+)\\).*" "\\1" LLAMA_VERSION_${part} "${line}")
endforeach()
set(LLAMA_VERSION_BASE "${LLAMA_VERSION_MAJOR}.${LLAMA_VERSION_MINOR}.${LLAMA_VERSION_PATCH}")
set(LLAMA_VERSION "${LLAMA_VERSION_BASE}")
set(LLAMA_BUILD_COMMIT "${FLOATLLM_LLAMA_RELEASE}")
function(llama_add_compile_flags)
endfunction()
add_subdirectory("${FLOATLLM_LLAMA_SOURCE}/src" llama EXCLUDE_FROM_ALL SYSTEM)
floatllm_use_patched(llama)
floatllm_require_patched(src)
