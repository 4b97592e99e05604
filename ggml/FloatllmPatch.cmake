# What we change in llama.cpp's tree, as little as can be. Each change is a file in patches/, with its reason.
#
# The tree itself stays as it was verified: a target compiles a copy of the file, from the build folder.
include_guard(GLOBAL)
include(FloatllmManifest)

# floatllm_patch(FILE BEFORE AFTER): in a copy of a file of the tree BEFORE, which it holds once, is AFTER. Texts begin
# with the line after the bracket.
function(floatllm_patch file before after)
    set(source "${FLOATLLM_LLAMA_SOURCE}/${file}")
    get_property(patched GLOBAL PROPERTY FLOATLLM_PATCHED)
    if(file IN_LIST patched)
        get_property(text GLOBAL PROPERTY "FLOATLLM_PATCHED_${file}")
    else()
        file(READ "${source}" text)
        set_property(GLOBAL APPEND PROPERTY FLOATLLM_PATCHED "${file}")
        set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${source}")
    endif()
    string(FIND "${text}" "${before}" first)
    string(FIND "${text}" "${before}" last REVERSE)
    if(first EQUAL -1 OR NOT first EQUAL last)
        message(FATAL_ERROR "A patch of FloatLLM's does not fit ${file} of the llama.cpp source in\n"
                            "  ${FLOATLLM_LLAMA_SOURCE}\nUse the pinned tree, ${pinned_release}.")
    endif()
    string(REPLACE "${before}" "${after}" text "${text}")
    set_property(GLOBAL PROPERTY "FLOATLLM_PATCHED_${file}" "${text}")
endfunction()

# Writes the copies, once all patches are known: a file that is written is compiled again.
function(floatllm_write_patched)
    get_property(patched GLOBAL PROPERTY FLOATLLM_PATCHED)
    foreach(file IN LISTS patched)
        get_property(text GLOBAL PROPERTY "FLOATLLM_PATCHED_${file}")
        floatllm_write_changed("${CMAKE_BINARY_DIR}/patched/${file}" "${text}")
    endforeach()
endfunction()

# Has a target of the tree compile the copies of those of its files that are patched.
function(floatllm_use_patched target)
    get_target_property(folder ${target} SOURCE_DIR)
    get_target_property(sources ${target} SOURCES)
    get_property(patched GLOBAL PROPERTY FLOATLLM_PATCHED)
    set(changed "")
    foreach(source IN LISTS sources)
        cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${folder}" NORMALIZE OUTPUT_VARIABLE path)
        cmake_path(RELATIVE_PATH path BASE_DIRECTORY "${FLOATLLM_LLAMA_SOURCE}" OUTPUT_VARIABLE file)
        if(file IN_LIST patched)
            set(source "${CMAKE_BINARY_DIR}/patched/${file}")
            set_property(GLOBAL APPEND PROPERTY FLOATLLM_PATCHED_USED "${file}")
            # Files that may be compiled in one with others have to be told apart by name.
            set_source_files_properties("${source}" TARGET_DIRECTORY ${target}
                                        PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
        endif()
        list(APPEND changed "${source}")
    endforeach()
    set_target_properties(${target} PROPERTIES SOURCES "${changed}")
endfunction()

# Ends if a patched file below FOLDER is one that no target compiles: it would be as if there were no patch.
function(floatllm_require_patched folder)
    get_property(patched GLOBAL PROPERTY FLOATLLM_PATCHED)
    get_property(used GLOBAL PROPERTY FLOATLLM_PATCHED_USED)
    foreach(file IN LISTS patched)
        if(file MATCHES "^${folder}/" AND NOT file IN_LIST used)
            message(FATAL_ERROR "FloatLLM patches ${file}, and nothing of the llama.cpp source in\n"
                                "  ${FLOATLLM_LLAMA_SOURCE}\nis made of it. Use the pinned tree, ${pinned_release}.")
        endif()
    endforeach()
endfunction()

file(GLOB patches "${CMAKE_CURRENT_LIST_DIR}/patches/*.cmake")
foreach(patch IN LISTS patches)
    include("${patch}")
    set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${patch}")
endforeach()
floatllm_write_patched()
