# The install component `floatllm`: what enters the wheel, all of it inside the package folder floatllm/.
include_guard(GLOBAL)
include(FloatllmManifest)

set(FLOATLLM_PACKAGE_DIR "floatllm")
set(floatllm_manifest "${CMAKE_CURRENT_BINARY_DIR}/manifest.json")
floatllm_write_manifest("${floatllm_manifest}")

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
        if(type MATCHES "^(SHARED|MODULE)_LIBRARY$")
            set_target_properties(${target} PROPERTIES INSTALL_RPATH "${FLOATLLM_RPATH}")
            list(APPEND floatllm_libraries ${target})
            # ggml is added with EXCLUDE_FROM_ALL, and a loadable backend is linked by nobody.
            if(type STREQUAL "MODULE_LIBRARY")
                add_dependencies(floatllm ${target})
            endif()
        endif()
    endforeach()
endif()
install(TARGETS ${floatllm_libraries}
    LIBRARY DESTINATION "${FLOATLLM_PACKAGE_DIR}" COMPONENT floatllm NAMELINK_SKIP
    RUNTIME DESTINATION "${FLOATLLM_PACKAGE_DIR}" COMPONENT floatllm
    ARCHIVE DESTINATION lib COMPONENT development)

install(FILES "${floatllm_manifest}" DESTINATION "${FLOATLLM_PACKAGE_DIR}" COMPONENT floatllm)

set(floatllm_license_dirs "${FLOATLLM_PACKAGE_DIR}/licenses")
if(SKBUILD)
    list(APPEND floatllm_license_dirs "${SKBUILD_METADATA_DIR}/licenses")
endif()
foreach(dir IN LISTS floatllm_license_dirs)
    install(FILES "${FLOATLLM_GGML_SOURCE}/LICENSE" DESTINATION "${dir}/ggml" COMPONENT floatllm)
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/../LICENSE")
        install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/../LICENSE" DESTINATION "${dir}/floatllm" COMPONENT floatllm)
    endif()
endforeach()
