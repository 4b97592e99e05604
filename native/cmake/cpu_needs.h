/* Preprocessed, never compiled, with the flags of ggml's CPU backend: a line for each extension of the
 * processor that those flags let the compiler use. native/src/cpu.cpp asks a processor for the same names.
 * Older extensions come first. */
/* clang-format off */
#ifdef __SSE3__
need sse3
#endif
#ifdef __SSSE3__
need ssse3
#endif
#ifdef __SSE4_1__
need sse4_1
#endif
#ifdef __SSE4_2__
need sse4_2
#endif
#ifdef __POPCNT__
need popcnt
#endif
#ifdef __AVX__
need avx
#endif
#ifdef __F16C__
need f16c
#endif
#ifdef __FMA__
need fma
#endif
#ifdef __AVX2__
need avx2
#endif
#ifdef __BMI__
need bmi
#endif
#ifdef __BMI2__
need bmi2
#endif
#ifdef __LZCNT__
need lzcnt
#endif
#ifdef __MOVBE__
need movbe
#endif
#ifdef __ADX__
need adx
#endif
#ifdef __AVX512F__
need avx512f
#endif
#ifdef __AVX512CD__
need avx512cd
#endif
#ifdef __AVX512BW__
need avx512bw
#endif
#ifdef __AVX512DQ__
need avx512dq
#endif
#ifdef __AVX512VL__
need avx512vl
#endif
#ifdef __AVX512IFMA__
need avx512ifma
#endif
#ifdef __AVX512VBMI__
need avx512vbmi
#endif
#ifdef __AVX512VBMI2__
need avx512vbmi2
#endif
#ifdef __AVX512VNNI__
need avx512vnni
#endif
#ifdef __AVX512BITALG__
need avx512bitalg
#endif
#ifdef __AVX512VPOPCNTDQ__
need avx512vpopcntdq
#endif
#ifdef __AVX512BF16__
need avx512bf16
#endif
#ifdef __AVX512FP16__
need avx512fp16
#endif
#ifdef __AVXVNNI__
need avxvnni
#endif
#ifdef __GFNI__
need gfni
#endif
#ifdef __AMX_TILE__
need amx_tile
#endif
#ifdef __AMX_INT8__
need amx_int8
#endif
#ifdef __AMX_BF16__
need amx_bf16
#endif
#ifdef __ARM_FEATURE_ATOMICS
need lse
#endif
#ifdef __ARM_FEATURE_QRDMX
need rdm
#endif
#ifdef __ARM_FEATURE_RCPC
need rcpc
#endif
#ifdef __ARM_FEATURE_FP16_VECTOR_ARITHMETIC
need fp16
#endif
#ifdef __ARM_FEATURE_DOTPROD
need dotprod
#endif
#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
need bf16
#endif
#ifdef __ARM_FEATURE_MATMUL_INT8
need i8mm
#endif
#ifdef __ARM_FEATURE_SVE
need sve
#endif
#ifdef __ARM_FEATURE_SVE2
need sve2
#endif
#ifdef __ARM_FEATURE_SME
need sme
#endif
