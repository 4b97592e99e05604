# Flags for everything that is built here, and floatllm_target_flags() for FloatLLM's own target.
include_guard(GLOBAL)
include(CheckCCompilerFlag)
include(CheckCXXCompilerFlag)
include(CheckLinkerFlag)
include(CheckSourceCompiles)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

# Recorded in the manifest; taken here, before this file adds what is always added.
set(FLOATLLM_USER_C_FLAGS "${CMAKE_C_FLAGS}")
set(FLOATLLM_USER_CXX_FLAGS "${CMAKE_CXX_FLAGS}")

# The tool writes flags into this file while it builds, where memory turns out to be short. The compilers read
# it themselves, so that nothing that is built already is built again.
set(FLOATLLM_FLAGS_FILE "" CACHE FILEPATH "File with further compiler flags")
if(FLOATLLM_FLAGS_FILE)
    add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:@${FLOATLLM_FLAGS_FILE}>")
endif()

# Takes the folder names of this machine out of __FILE__ and of debug information. The last matching
# map wins in GCC and Clang, so the outer folders come first.
function(floatllm_map_folders llama_source)
    check_c_compiler_flag("-ffile-prefix-map=a=b" FLOATLLM_C_PREFIX_MAP)
    check_cxx_compiler_flag("-ffile-prefix-map=a=b" FLOATLLM_CXX_PREFIX_MAP)
    foreach(pair "${CMAKE_BINARY_DIR}=build" "${CMAKE_CURRENT_SOURCE_DIR}=native"
                 "${llama_source}=llama.cpp" "${llama_source}/ggml=ggml")
        if(FLOATLLM_C_PREFIX_MAP)
            add_compile_options("$<$<COMPILE_LANGUAGE:C>:-ffile-prefix-map=${pair}>")
        endif()
        if(FLOATLLM_CXX_PREFIX_MAP)
            add_compile_options("$<$<COMPILE_LANGUAGE:CXX,HIP>:-ffile-prefix-map=${pair}>")
            add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-ffile-prefix-map=${pair}>")
        endif()
    endforeach()
endfunction()

# --no-keep-memory makes GNU ld read symbol tables again instead of holding them. Other linkers ignore or
# refuse it, and CMAKE_EXE_LINKER_FLAGS does not reach shared or module libraries: each is asked by itself.
if(FLOATLLM_LOW_MEM AND NOT MSVC AND NOT APPLE)
    set(no_keep_memory "-Wl,--no-keep-memory")
    check_linker_flag(CXX "${no_keep_memory}" FLOATLLM_EXE_NO_KEEP_MEMORY)
    set(CMAKE_REQUIRED_FLAGS "-fPIC")
    foreach(kind SHARED MODULE)
        if(kind STREQUAL "SHARED")
            separate_arguments(create NATIVE_COMMAND "${CMAKE_SHARED_LIBRARY_CREATE_CXX_FLAGS}")
        else()
            separate_arguments(create NATIVE_COMMAND "${CMAKE_SHARED_MODULE_CREATE_CXX_FLAGS}")
        endif()
        set(CMAKE_REQUIRED_LINK_OPTIONS ${create} "${no_keep_memory}")
        check_source_compiles(CXX "int main() { return 0; }" FLOATLLM_${kind}_NO_KEEP_MEMORY)
    endforeach()
    unset(CMAKE_REQUIRED_FLAGS)
    unset(CMAKE_REQUIRED_LINK_OPTIONS)
    foreach(kind EXE SHARED MODULE)
        if(FLOATLLM_${kind}_NO_KEEP_MEMORY)
            string(APPEND CMAKE_${kind}_LINKER_FLAGS " ${no_keep_memory}")
        endif()
    endforeach()
endif()

if(APPLE)
    set(FLOATLLM_RPATH "@loader_path")
else()
    set(FLOATLLM_RPATH "$ORIGIN")
endif()
# Installing replaces the build folder's path, and leaves room as long as it was in the library's table of strings.
if(GGML_BACKEND_DL)
    set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
endif()

# What a library takes in from static ones stays inside. Another library in the same process may hold its own ggml,
# and some compilers link libstdc++ statically: its locales in two copies that see each other's symbols crash.
function(floatllm_seal target)
    check_linker_flag(CXX "-Wl,--exclude-libs,ALL" FLOATLLM_EXCLUDE_LIBS)
    if(FLOATLLM_EXCLUDE_LIBS)
        target_link_options(${target} PRIVATE "-Wl,--exclude-libs,ALL")
    endif()
endfunction()

# The C++ runtime inside the engine. Otherwise it asks for the one of the compiler that built it, and a Python with an
# older one of its own (conda) cannot load it. Only where the engine is one library, because exceptions do not pass
# between two copies; only GNU's runtime, which lies beside its compiler as an archive. A sanitizer brings parts of it.
option(FLOATLLM_STATIC_RUNTIME "Link libstdc++ and libgcc statically into an engine in one piece, where they can be" ON)
function(floatllm_own_runtime target)
    if(NOT FLOATLLM_STATIC_RUNTIME OR BUILD_SHARED_LIBS OR FLOATLLM_SANITIZE OR NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
        return()
    endif()
    set(flags -static-libstdc++ -static-libgcc)
    set(CMAKE_REQUIRED_FLAGS "-fPIC")
    # Else the test is compiled with -fPIE, as a program.
    set(CMAKE_POSITION_INDEPENDENT_CODE OFF)
    separate_arguments(create NATIVE_COMMAND "${CMAKE_SHARED_LIBRARY_CREATE_CXX_FLAGS}")
    set(CMAKE_REQUIRED_LINK_OPTIONS ${create} ${flags} "-Wl,--exclude-libs,ALL")
    check_source_compiles(CXX "
        #include <stdexcept>
        #include <string>
        int main(int count, char **words) {
            try {
                throw std::runtime_error(std::string(words[0]) + std::to_string(count));
            } catch (const std::exception &error) {
                return error.what()[0];
            }
        }
        #ifndef __GLIBCXX__
        #error another runtime
        #endif" FLOATLLM_OWN_RUNTIME)
    if(FLOATLLM_OWN_RUNTIME)
        target_link_options(${target} PRIVATE ${flags})
        check_linker_flag(CXX "-Wl,--gc-sections" FLOATLLM_GC_SECTIONS)
        if(FLOATLLM_GC_SECTIONS)
            # Most of the archive is never called.
            target_link_options(${target} PRIVATE "-Wl,--gc-sections")
        endif()
    endif()
endfunction()

# For a library that is asked for a few functions by name: the others stay inside, and what none of them uses is
# left out, a tenth of it.
function(floatllm_trim target)
    set_target_properties(${target} PROPERTIES C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
                                               VISIBILITY_INLINES_HIDDEN ON)
    check_linker_flag(CXX "-Wl,--gc-sections" FLOATLLM_GC_SECTIONS)
    if(FLOATLLM_GC_SECTIONS)
        target_compile_options(${target} PRIVATE
            "$<$<COMPILE_LANGUAGE:C,CXX>:-ffunction-sections>" "$<$<COMPILE_LANGUAGE:C,CXX>:-fdata-sections>")
        target_link_options(${target} PRIVATE "-Wl,--gc-sections")
    endif()
endfunction()

function(floatllm_target_flags target)
    if(MSVC)
        target_compile_options(${target} PRIVATE /W4 /utf-8 $<$<BOOL:${FLOATLLM_WERROR}>:/WX>)
    else()
        target_compile_options(${target} PRIVATE
            -Wall -Wextra -Wpedantic -Wshadow -Wconversion $<$<BOOL:${FLOATLLM_WERROR}>:-Werror>)
    endif()
    set_target_properties(${target} PROPERTIES INSTALL_RPATH "${FLOATLLM_RPATH}")
    floatllm_seal(${target})
endfunction()
