# Hardening of everything that is built here, with the flags that distributions use: the engine reads files that
# anybody may have made. Each flag is asked of the compiler or the linker by itself.
#
# Windows is left out: stack cookies, ASLR and NX are the defaults of its compilers and linkers.
include_guard(GLOBAL)
include(CheckCCompilerFlag)
include(CheckCXXCompilerFlag)
include(CheckLinkerFlag)
include(CheckSourceCompiles)

option(FLOATLLM_HARDEN "Build with stack protectors, checked copies and read-only relocations" ON)

if(WIN32 OR NOT FLOATLLM_HARDEN)
    return()
endif()

# All relocations are done and write-protected when the library is loaded, and no stack holds code.
foreach(word relro now noexecstack)
    set(flag "-Wl,-z,${word}")
    string(TOUPPER "FLOATLLM_Z_${word}" has)
    check_linker_flag(CXX "${flag}" ${has})
    if(${has})
        foreach(kind EXE SHARED MODULE)
            string(APPEND CMAKE_${kind}_LINKER_FLAGS " ${flag}")
        endforeach()
    endif()
endforeach()

# hipcc compiles for the GPU with the same flags, and a GPU has none of these.
if(CMAKE_CXX_COMPILER MATCHES "hipcc")
    return()
endif()

foreach(flag -fstack-protector-strong -fstack-clash-protection -fcf-protection -mbranch-protection=standard)
    string(MAKE_C_IDENTIFIER "${flag}" name)
    string(TOUPPER "${name}" name)
    check_c_compiler_flag(${flag} FLOATLLM_C${name})
    check_cxx_compiler_flag(${flag} FLOATLLM_CXX${name})
    foreach(language C CXX)
        if(FLOATLLM_${language}${name})
            add_compile_options("$<$<COMPILE_LANGUAGE:${language}>:${flag}>")
        endif()
    endforeach()
    if(FLOATLLM_CXX${name})
        add_compile_options("$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xcompiler=${flag}>")
    endif()
endforeach()

# Copies that know the size of their target are checked. Only an optimiser knows sizes, and the C library warns
# where there is none, or where it knows no level 3. A sanitizer sees more by itself, but not through these checks.
# nvcc's own front end is left with what the host's compiler does by default.
set(sanitized "${CMAKE_C_FLAGS} ${CMAKE_CXX_FLAGS}")
if(FLOATLLM_SANITIZE OR FLOATLLM_FUZZ OR sanitized MATCHES "-fsanitize=")
    return()
endif()
set(type "")
if(CMAKE_CONFIGURATION_TYPES)
    set(optimised "$<NOT:$<CONFIG:Debug>>")
    set(type RELEASE)
else()
    set(optimised 1)
    string(TOUPPER "${CMAKE_BUILD_TYPE}" type)
endif()
foreach(language C CXX)
    foreach(level 3 2)
        set(flags -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=${level})
        list(JOIN flags " " CMAKE_REQUIRED_FLAGS)
        string(PREPEND CMAKE_REQUIRED_FLAGS "${CMAKE_${language}_FLAGS_${type}} -Werror ")
        check_source_compiles(${language}
            "#include <string.h>\n#ifndef __OPTIMIZE__\n#error no sizes are known\n#endif\nint main(void) { return 0; }"
            FLOATLLM_${language}_FORTIFY_${level})
        unset(CMAKE_REQUIRED_FLAGS)
        if(FLOATLLM_${language}_FORTIFY_${level})
            foreach(flag IN LISTS flags)
                add_compile_options("$<$<AND:$<COMPILE_LANGUAGE:${language}>,${optimised}>:${flag}>")
            endforeach()
            break()
        endif()
    endforeach()
endforeach()
