# One backend alone, as the library that an engine with loadable backends takes in: the plugin wheel
# floatllm-<FLOATLLM_PLUGIN>, native/plugins/<FLOATLLM_PLUGIN>.
include_guard(GLOBAL)
include(FloatllmPackage)

set(floatllm_plugins "cuda13|ggml-cuda" "hip|ggml-hip" "vulkan|ggml-vulkan")
set(floatllm_plugin_target "")
foreach(pair IN LISTS floatllm_plugins)
    if(pair MATCHES "^${FLOATLLM_PLUGIN}[|](.*)$")
        set(floatllm_plugin_target "${CMAKE_MATCH_1}")
    endif()
endforeach()
if(floatllm_plugin_target STREQUAL "" OR NOT TARGET ${floatllm_plugin_target})
    message(FATAL_ERROR "FLOATLLM_PLUGIN is ${FLOATLLM_PLUGIN}, and no such backend is on. Use a preset: wheel-vulkan, "
                        "wheel-cuda or wheel-hip.")
endif()
get_target_property(floatllm_plugin_type ${floatllm_plugin_target} TYPE)
if(NOT floatllm_plugin_type STREQUAL "MODULE_LIBRARY")
    message(FATAL_ERROR "A plugin is a loadable backend: set GGML_BACKEND_DL=ON, as the wheel presets do.")
endif()

# The engine's own libraries lie beside it once both are installed.
list(GET FLOATLLM_RPATH 0 floatllm_origin)
list(APPEND FLOATLLM_RPATH "${floatllm_origin}/../floatllm")
if(FLOATLLM_PLUGIN STREQUAL "cuda13" AND NOT WIN32)
    list(APPEND FLOATLLM_RPATH "$ORIGIN/../nvidia/cu13/lib")
    list(REMOVE_DUPLICATES FLOATLLM_RPATH)
endif()
set_target_properties(${floatllm_plugin_target} PROPERTIES INSTALL_RPATH "${FLOATLLM_RPATH}"
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}" RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
floatllm_seal(${floatllm_plugin_target})
# ggml is added with EXCLUDE_FROM_ALL.
add_custom_target(floatllm_plugin ALL)
add_dependencies(floatllm_plugin ${floatllm_plugin_target})

floatllm_package(NAME "floatllm_${FLOATLLM_PLUGIN}" DISTRIBUTION "floatllm-${FLOATLLM_PLUGIN}"
    SOURCES "${CMAKE_CURRENT_SOURCE_DIR}/plugins/${FLOATLLM_PLUGIN}/floatllm_${FLOATLLM_PLUGIN}"
    TARGETS ${floatllm_plugin_target})
