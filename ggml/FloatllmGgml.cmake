# Finds the source of llama.cpp, says whether it is the pinned tree, and adds the targets of the ggml in it.
#
# Input:  GGML_DIR (optional)   a llama.cpp source folder of the user's own choice
# Output: targets ggml and ggml-base;
#         FLOATLLM_GGML_VERSION, FLOATLLM_LLAMA_RELEASE ("unpinned" for any other tree),
#         FLOATLLM_TREE_SHA256, FLOATLLM_TREE_PINNED, FLOATLLM_LLAMA_SOURCE, FLOATLLM_GGML_SOURCE,
#         FLOATLLM_CPU_VARIANTS (haswell, ...), of the CPU backend where they are libraries of their own
include_guard(GLOBAL)

# The cache folder of the floatllm-build tool, by the rules of platformdirs.user_cache_dir("floatllm").
function(floatllm_user_cache_dir out)
    if(NOT "$ENV{FLOATLLM_CACHE_DIR}" STREQUAL "")
        set(dir "$ENV{FLOATLLM_CACHE_DIR}")
    elseif(CMAKE_HOST_WIN32)
        set(dir "$ENV{LOCALAPPDATA}/floatllm/floatllm/Cache")
    elseif(CMAKE_HOST_APPLE)
        set(dir "$ENV{HOME}/Library/Caches/floatllm")
    elseif(NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
        set(dir "$ENV{XDG_CACHE_HOME}/floatllm")
    else()
        set(dir "$ENV{HOME}/.cache/floatllm")
    endif()
    file(TO_CMAKE_PATH "${dir}" dir)
    set(${out} "${dir}" PARENT_SCOPE)
endfunction()

# SHA-256 over "<sha256 of file>  <path>\n" of the files that pin.json names, sorted by path.
function(floatllm_tree_hash dir pin out)
    set(files "")
    string(JSON count LENGTH "${pin}" tree)
    math(EXPR last "${count} - 1")
    foreach(index RANGE ${last})
        string(JSON pattern GET "${pin}" tree ${index})
        if(pattern MATCHES "/[*][*]$")
            string(REGEX REPLACE "[*]$" "" pattern "${pattern}")
            file(GLOB_RECURSE found LIST_DIRECTORIES false RELATIVE "${dir}" "${dir}/${pattern}")
        else()
            file(GLOB found LIST_DIRECTORIES false RELATIVE "${dir}" "${dir}/${pattern}")
        endif()
        list(APPEND files ${found})
    endforeach()
    list(SORT files COMPARE STRING)
    set(lines "")
    foreach(file IN LISTS files)
        file(SHA256 "${dir}/${file}" hash)
        string(APPEND lines "${hash}  ${file}\n")
    endforeach()
    string(SHA256 hash "${lines}")
    set(${out} "${hash}" PARENT_SCOPE)
endfunction()

set(GGML_DIR "" CACHE PATH "Folder of the llama.cpp source; empty: the pinned one beside us or in the user's cache")

file(READ "${CMAKE_CURRENT_LIST_DIR}/pin.json" pin)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/pin.json")
string(JSON pinned_version GET "${pin}" version)
string(JSON pinned_release GET "${pin}" release)
string(JSON pinned_hash GET "${pin}" tree_sha256)
string(SUBSTRING "${pinned_hash}" 0 16 pinned_short)

floatllm_user_cache_dir(cache_dir)
set(beside "${CMAKE_CURRENT_LIST_DIR}/source")
set(cached "${cache_dir}/ggml/${pinned_version}-${pinned_short}")
if(GGML_DIR)
    set(FLOATLLM_LLAMA_SOURCE "${GGML_DIR}")
elseif(EXISTS "${beside}/LICENSE")
    set(FLOATLLM_LLAMA_SOURCE "${beside}")
else()
    set(FLOATLLM_LLAMA_SOURCE "${cached}")
endif()
# As CMake writes the folders of targets, which are compared with it.
cmake_path(NORMAL_PATH FLOATLLM_LLAMA_SOURCE)
set(FLOATLLM_GGML_SOURCE "${FLOATLLM_LLAMA_SOURCE}/ggml")
if(NOT EXISTS "${FLOATLLM_GGML_SOURCE}/include/ggml.h" OR NOT EXISTS "${FLOATLLM_LLAMA_SOURCE}/include/llama.h")
    string(JSON repository GET "${pin}" origins 1 repository)
    string(JSON tag GET "${pin}" origins 1 tag)
    message(FATAL_ERROR
        "No llama.cpp source at ${FLOATLLM_LLAMA_SOURCE}: it is not part of this repository. Either run\n"
        "  floatllm-build fetch\n"
        "and configure again, or get it yourself and name the folder:\n"
        "  git clone --depth 1 --branch ${tag} ${repository} ggml-source\n"
        "  cmake --preset cpu -S native -DGGML_DIR=ggml-source")
endif()

floatllm_tree_hash("${FLOATLLM_LLAMA_SOURCE}" "${pin}" FLOATLLM_TREE_SHA256)
# A tree found without the user naming it must be the pinned one; a named one is the user's own decision.
if(FLOATLLM_TREE_SHA256 STREQUAL pinned_hash)
    set(FLOATLLM_TREE_PINNED TRUE)
    set(FLOATLLM_GGML_VERSION "${pinned_version}")
    set(FLOATLLM_LLAMA_RELEASE "${pinned_release}")
    set(GGML_BUILD_COMMIT "${pinned_release}")
elseif(GGML_DIR)
    set(FLOATLLM_TREE_PINNED FALSE)
    set(FLOATLLM_LLAMA_RELEASE "unpinned")
    set(GGML_BUILD_COMMIT "unpinned")
    file(STRINGS "${FLOATLLM_GGML_SOURCE}/CMakeLists.txt" version_lines
         REGEX "^set\\(GGML_VERSION_(MAJOR|MINOR|PATCH) [0-9]+\\)")
    list(TRANSFORM version_lines REPLACE ".* ([0-9]+)\\).*" "\\1")
    list(JOIN version_lines "." FLOATLLM_GGML_VERSION)
    message(WARNING
        "The source of llama.cpp in ${FLOATLLM_LLAMA_SOURCE} is not the pinned ${pinned_release}: its tree hash is\n"
        "  ${FLOATLLM_TREE_SHA256}, pinned is\n  ${pinned_hash}.\n"
        "FloatLLM is tested with the pinned tree only; the manifest will say that this one is not.")
else()
    message(FATAL_ERROR
        "The source of llama.cpp in ${FLOATLLM_LLAMA_SOURCE} was changed: its tree hash is\n"
        "  ${FLOATLLM_TREE_SHA256}, pinned is\n  ${pinned_hash}.\n"
        "Delete that folder and run `floatllm-build fetch`, or pass -DGGML_DIR=FOLDER to use a tree of your own.")
endif()

if(NOT DEFINED BUILD_SHARED_LIBS)
    set(BUILD_SHARED_LIBS OFF CACHE BOOL "Build ggml as shared libraries beside the engine")
endif()
# ggml would ask git about whatever repository happens to surround its folder.
set(GIT_EXE OFF CACHE INTERNAL "ggml's git lookup is off; the release comes from pin.json")
# Its warnings are its authors' to read: with GCC 12 they fill 14,000 lines and hide what matters.
set(GGML_ALL_WARNINGS OFF CACHE BOOL "Let the compiler warn about ggml's own sources")
set(GGML_BUILD_TESTS OFF CACHE BOOL "" FORCE)
set(GGML_BUILD_EXAMPLES OFF CACHE BOOL "" FORCE)

find_package(Threads REQUIRED)
floatllm_map_folders("${FLOATLLM_LLAMA_SOURCE}")
# EXCLUDE_FROM_ALL leaves ggml's own install rules out; SYSTEM keeps its headers out of our warnings.
add_subdirectory("${FLOATLLM_GGML_SOURCE}" ggml EXCLUDE_FROM_ALL SYSTEM)

include(FloatllmPatch)
get_property(targets DIRECTORY "${FLOATLLM_GGML_SOURCE}/src" PROPERTY BUILDSYSTEM_TARGETS)
list(FILTER targets INCLUDE REGEX "^ggml-cpu")
list(FILTER targets EXCLUDE REGEX "-feats$")
foreach(target IN LISTS targets)
    floatllm_use_patched(${target})
endforeach()
if(targets)
    floatllm_require_patched(ggml/src/ggml-cpu)
endif()

# ggml lists the CPU's variants without asking the compiler, and GCC 12 knows nothing of Arm's SME. Those that it
# cannot compile are emptied, because ggml depends on them, and enter no wheel.
set(FLOATLLM_CPU_VARIANTS "")
if(GGML_CPU_ALL_VARIANTS)
    get_property(targets DIRECTORY "${FLOATLLM_GGML_SOURCE}/src" PROPERTY BUILDSYSTEM_TARGETS)
    list(FILTER targets INCLUDE REGEX "^ggml-cpu-.*")
    list(FILTER targets EXCLUDE REGEX "-feats$")
    foreach(target IN LISTS targets)
        get_target_property(options ${target} COMPILE_OPTIONS)
        list(FILTER options EXCLUDE REGEX "[$]<|^@|NOTFOUND$")
        list(JOIN options " " CMAKE_REQUIRED_FLAGS)
        string(MAKE_C_IDENTIFIER "FLOATLLM_COMPILES_${target}" compiles)
        check_source_compiles(C "int main(void) { return 0; }" ${compiles})
        string(REPLACE "ggml-cpu-" "" variant "${target}")
        if(${compiles})
            list(APPEND FLOATLLM_CPU_VARIANTS "${variant}")
        else()
            message(STATUS "Leaving out the CPU's variant ${variant}: this compiler does not take ${CMAKE_REQUIRED_FLAGS}")
            file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/left-out.c" CONTENT "int floatllm_left_out;\n")
            set_target_properties(${target} PROPERTIES COMPILE_OPTIONS ""
                                  SOURCES "${CMAKE_CURRENT_BINARY_DIR}/left-out.c" LINKER_LANGUAGE CXX)
        endif()
        unset(CMAKE_REQUIRED_FLAGS)
    endforeach()
endif()

# Another package in the same process may bring ggml too, and the loader takes libraries of one name for one library.
if(BUILD_SHARED_LIBS)
    foreach(target ggml ggml-base)
        set_target_properties(${target} PROPERTIES OUTPUT_NAME floatllm-${target})
        # Here, so that a plugin links with what it will find beside it: a library that gives away nothing else.
        floatllm_seal(${target})
    endforeach()
endif()

# GCC 12 makes usdot of a loop over what is left behind the pairs of blocks in the product of Q5_0, and takes signed
# numbers for unsigned ones (found by the engine's own proof). The file's other loops are written by hand.
set(arm_products "${FLOATLLM_GGML_SOURCE}/src/ggml-cpu/arch/arm/quants.c")
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$"
   AND EXISTS "${arm_products}")
    # The targets of all variants are made where ggml-base is.
    set_source_files_properties("${arm_products}" TARGET_DIRECTORY ggml-base
                                PROPERTIES COMPILE_OPTIONS "-fno-tree-loop-vectorize")
endif()
