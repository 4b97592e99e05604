# What enters the engine's wheel.
include_guard(GLOBAL)
include(FloatllmPackage)

set(floatllm_libraries floatllm)
if(BUILD_SHARED_LIBS)
    get_property(ggml_targets DIRECTORY "${FLOATLLM_GGML_SOURCE}/src" PROPERTY BUILDSYSTEM_TARGETS)
    get_property(ggml_folders DIRECTORY "${FLOATLLM_GGML_SOURCE}/src" PROPERTY SUBDIRECTORIES)
    foreach(folder IN LISTS ggml_folders)
        get_property(more DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
        list(APPEND ggml_targets ${more})
    endforeach()
    foreach(target IN LISTS ggml_targets)
        get_target_property(type ${target} TYPE)
        string(REPLACE "ggml-cpu-" "" variant "${target}")
        set(left_out FALSE)
        if(target MATCHES "^ggml-cpu-" AND NOT variant IN_LIST FLOATLLM_CPU_VARIANTS)
            set(left_out TRUE)
        endif()
        if(type MATCHES "^(SHARED|MODULE)_LIBRARY$" AND NOT left_out)
            # All beside the engine, in the build folder too, for that is where it looks for them.
            set_target_properties(${target} PROPERTIES INSTALL_RPATH "${FLOATLLM_RPATH}"
                LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}"
                RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
            floatllm_seal(${target})
            list(APPEND floatllm_libraries ${target})
            # ggml is added with EXCLUDE_FROM_ALL, and a loadable backend is linked by nobody.
            if(type STREQUAL "MODULE_LIBRARY")
                add_dependencies(floatllm ${target})
                floatllm_trim(${target})
            endif()
        endif()
    endforeach()
endif()
floatllm_package(NAME floatllm DISTRIBUTION floatllm SOURCES "${CMAKE_CURRENT_SOURCE_DIR}/floatllm"
                 TARGETS ${floatllm_libraries})
