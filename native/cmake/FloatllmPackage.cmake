# floatllm_package(): what enters a wheel, as an install component, all of it inside one package folder beside
# the wheel's own metadata.
include_guard(GLOBAL)
include(FloatllmManifest)
include(FloatllmSbom)

# floatllm_package(NAME floatllm DISTRIBUTION floatllm SOURCES native/floatllm TARGETS a b)
#   NAME          the package, its folder in the wheel and the install component
#   DISTRIBUTION  the project's name
#   SOURCES       folder of its Python files, which the packer adds
#   TARGETS       libraries
function(floatllm_package)
    cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;DISTRIBUTION;SOURCES" "TARGETS")
    install(TARGETS ${arg_TARGETS}
        LIBRARY DESTINATION "${arg_NAME}" COMPONENT ${arg_NAME} NAMELINK_SKIP
        RUNTIME DESTINATION "${arg_NAME}" COMPONENT ${arg_NAME}
        ARCHIVE DESTINATION lib COMPONENT development)

    set(licenses "ggml|${FLOATLLM_LLAMA_SOURCE}/LICENSE")
    if(EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/../LICENSE")
        list(APPEND licenses "floatllm|${CMAKE_CURRENT_SOURCE_DIR}/../LICENSE")
    endif()
    # Where a wheel's metadata wants them, and in the package for whoever has no wheel.
    set(metadata "")
    if(SKBUILD)
        set(metadata "${SKBUILD_METADATA_DIR}")
    endif()
    set(files "")
    foreach(license IN LISTS licenses)
        string(REGEX MATCH "^([^|]*)[|](.*)$" _ "${license}")
        set(name "${CMAKE_MATCH_1}")
        if(metadata)
            install(FILES "${CMAKE_MATCH_2}" DESTINATION "${metadata}/licenses/${name}" COMPONENT ${arg_NAME})
            list(APPEND files "{metadata}/licenses/${name}/LICENSE")
        else()
            install(FILES "${CMAKE_MATCH_2}" DESTINATION "${arg_NAME}/licenses/${name}" COMPONENT ${arg_NAME})
            list(APPEND files "${arg_NAME}/licenses/${name}/LICENSE")
        endif()
    endforeach()

    foreach(target IN LISTS arg_TARGETS)
        floatllm_file_name(file ${target})
        list(APPEND files "${arg_NAME}/${file}")
    endforeach()
    file(GLOB sources RELATIVE "${arg_SOURCES}" "${arg_SOURCES}/*.py" "${arg_SOURCES}/py.typed")
    list(TRANSFORM sources PREPEND "${arg_NAME}/")
    list(APPEND files ${sources} "${arg_NAME}/manifest.json")
    if(metadata)
        floatllm_write_sbom("${CMAKE_CURRENT_BINARY_DIR}/${arg_DISTRIBUTION}.cdx.json" ${arg_DISTRIBUTION})
        install(FILES "${CMAKE_CURRENT_BINARY_DIR}/${arg_DISTRIBUTION}.cdx.json"
                DESTINATION "${metadata}/sboms" COMPONENT ${arg_NAME})
        list(APPEND files "{metadata}/sboms/${arg_DISTRIBUTION}.cdx.json" "{metadata}/METADATA" "{metadata}/RECORD"
             "{metadata}/WHEEL" "{metadata}/entry_points.txt")
    endif()
    string(REPLACE "{metadata}" "${arg_NAME}-${PROJECT_VERSION}.dist-info" files "${files}")
    list(SORT files)

    set(manifest "${CMAKE_CURRENT_BINARY_DIR}/manifest.json")
    floatllm_write_manifest("${manifest}" ${arg_DISTRIBUTION} "${files}")
    install(FILES "${manifest}" DESTINATION "${arg_NAME}" COMPONENT ${arg_NAME})
endfunction()

# The file name of a library target.
function(floatllm_file_name out target)
    get_target_property(type ${target} TYPE)
    string(REGEX REPLACE "_LIBRARY$" "" type "${type}")
    if(type STREQUAL "MODULE")
        set(kind SHARED_MODULE)
    else()
        set(kind SHARED_LIBRARY)
    endif()
    get_target_property(name ${target} OUTPUT_NAME)
    if(NOT name)
        set(name "${target}")
    endif()
    get_target_property(prefix ${target} PREFIX)
    if(prefix MATCHES "NOTFOUND$")
        set(prefix "${CMAKE_${kind}_PREFIX}")
    endif()
    get_target_property(suffix ${target} SUFFIX)
    if(suffix MATCHES "NOTFOUND$")
        set(suffix "${CMAKE_${kind}_SUFFIX}")
    endif()
    set(${out} "${prefix}${name}${suffix}" PARENT_SCOPE)
endfunction()
