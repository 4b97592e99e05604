# What the kernels of ggml's CPU backend need of the processor.
#
# Output: FLOATLLM_CPU_NEEDS, names with spaces between (avx2 fma ...): of a CPU backend that is part of the engine;
#         empty where its variants are libraries of their own, which ggml scores by itself before it uses one.
include_guard(GLOBAL)

# What the C compiler may use with `flags`, a text, and the list of options behind `out`.
function(floatllm_cpu_needs out flags)
    set(options ${ARGN})
    list(FILTER options EXCLUDE REGEX "[$]<|^@|NOTFOUND$")
    separate_arguments(before NATIVE_COMMAND "${CMAKE_C_COMPILER_ARG1} ${flags}")
    if(CMAKE_C_COMPILER_TARGET AND NOT MSVC)
        list(APPEND before "${CMAKE_C_COMPILE_OPTIONS_TARGET}${CMAKE_C_COMPILER_TARGET}")
    endif()
    if(APPLE AND CMAKE_OSX_ARCHITECTURES)
        list(GET CMAKE_OSX_ARCHITECTURES 0 architecture)
        list(APPEND before -arch "${architecture}")
    endif()
    set(preprocess -E)
    if(MSVC)
        set(preprocess /nologo /EP)
    endif()
    execute_process(
        COMMAND "${CMAKE_C_COMPILER}" ${before} ${options} ${preprocess} "${CMAKE_CURRENT_SOURCE_DIR}/cmake/cpu_needs.h"
        RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE said)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "The compiler does not say what it compiles the CPU's kernels for:\n${said}")
    endif()
    string(REGEX MATCHALL "need [a-z0-9_]+" needs "${text}")
    list(TRANSFORM needs REPLACE "need " "")
    list(JOIN needs " " needs)
    set(${out} "${needs}" PARENT_SCOPE)
endfunction()

if(TARGET ggml-cpu)
    get_target_property(floatllm_cpu_options ggml-cpu COMPILE_OPTIONS)
    floatllm_cpu_needs(FLOATLLM_CPU_NEEDS "${CMAKE_C_FLAGS}" ${floatllm_cpu_options})
else()
    set(FLOATLLM_CPU_NEEDS "")
    # Then all else must run on any processor, whatever flags the environment gives to every compiler.
    floatllm_cpu_needs(floatllm_baseline "")
    foreach(language C CXX)
        floatllm_cpu_needs(floatllm_flagged "${CMAKE_${language}_FLAGS}")
        if(NOT floatllm_flagged STREQUAL floatllm_baseline)
            message(FATAL_ERROR "CMAKE_${language}_FLAGS (\"${CMAKE_${language}_FLAGS}\") name a processor, and this build is for "
                                "any. Take -march and its like out of CFLAGS and CXXFLAGS, or use a preset for this machine.")
        endif()
    endforeach()
endif()
