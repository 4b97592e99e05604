# Leads FindCUDAToolkit, which ggml asks before the CUDA language is on, to the toolkit of the chosen compiler
# (CMAKE_CUDA_COMPILER or CUDACXX). By itself it may take another toolkit that it finds on PATH, and of one
# from the package index it finds no library, because only names with a version exist there.
include_guard(GLOBAL)

if(NOT GGML_CUDA)
    return()
endif()

set(nvcc "${CMAKE_CUDA_COMPILER}")
if(nvcc STREQUAL "")
    set(nvcc "$ENV{CUDACXX}")
endif()
if(nvcc STREQUAL "")
    return()
endif()
find_program(floatllm_nvcc NAMES "${nvcc}" NO_CACHE)
if(NOT floatllm_nvcc)
    return()
endif()
# A link or script on PATH may stand for the compiler; only its own folder lies in the toolkit.
file(REAL_PATH "${floatllm_nvcc}" floatllm_nvcc)
cmake_path(GET floatllm_nvcc PARENT_PATH toolkit)
cmake_path(GET toolkit PARENT_PATH toolkit)
if(NOT EXISTS "${toolkit}/include/cuda_runtime_api.h")
    return()
endif()
if(NOT CUDAToolkit_ROOT)
    set(CUDAToolkit_ROOT "${toolkit}" CACHE PATH "The toolkit of the CUDA compiler")
endif()

function(floatllm_toolkit_lacks what)
    message(FATAL_ERROR
        "The CUDA toolkit in ${toolkit} has no ${what}. Install the missing part, or take a whole toolkit from "
        "the package index and name its compiler (.../site-packages/nvidia/cu13/bin/nvcc) with CUDACXX:\n"
        "  python -m pip install 'cuda-toolkit[nvcc,cccl,cublas,crt,cudart]'")
endfunction()

if(NOT CUDA_cublas_LIBRARY AND NOT EXISTS "${toolkit}/include/cublas_v2.h")
    floatllm_toolkit_lacks("cublas_v2.h")
endif()

file(GLOB cudart "${toolkit}/lib/libcudart.so.*")
if(cudart STREQUAL "" OR EXISTS "${toolkit}/lib/libcudart.so" OR EXISTS "${toolkit}/lib64/libcudart.so")
    return()
endif()
if(CMAKE_VERSION VERSION_LESS 3.25.1)
    message(FATAL_ERROR
        "The CUDA toolkit in ${toolkit} is from the package index, and CMake ${CMAKE_VERSION} stumbles over a "
        "library that it does not hold. Use CMake 3.25.1 or newer:\n"
        "  python -m pip install 'cmake>=3.26'")
endif()
message(STATUS "CUDA toolkit of the package index in ${toolkit}")
foreach(pair "CUDA_CUDART cudart" "CUDA_cudart_LIBRARY cudart" "CUDA_cublas_LIBRARY cublas"
             "CUDA_cublasLt_LIBRARY cublasLt")
    string(REPLACE " " ";" pair "${pair}")
    list(GET pair 0 variable)
    list(GET pair 1 name)
    file(GLOB libraries "${toolkit}/lib/lib${name}.so.*")
    if(libraries STREQUAL "")
        floatllm_toolkit_lacks("lib${name}")
    endif()
    list(GET libraries 0 library)
    set(${variable} "${library}" CACHE FILEPATH "From the package index's CUDA toolkit")
endforeach()
# Where the package index's libraries lie beside an installed engine: packages that the wheel depends on.
cmake_path(GET toolkit FILENAME floatllm_kit)
if(NOT WIN32)
    list(APPEND FLOATLLM_RPATH "$ORIGIN/../nvidia/${floatllm_kit}/lib")
endif()
# It holds nothing to link the driver's own interface with.
set(GGML_CUDA_NO_VMM ON CACHE BOOL "Do without the driver's virtual memory management")
