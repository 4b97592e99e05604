# Some kernels of Arm multiply two rows with two columns at a time, and sum in another order than those for one row. ggml
# takes them if a thread's share of the rows and columns is even, so the numbers depended on how many threads there are,
# and on how many rows of a matrix are in memory at a time.
#
# Shares are now of whole pairs, for kernels of pairs; for others nothing changes.
floatllm_patch(ggml/src/ggml-cpu/ggml-cpu.c
[=[
    const int64_t dr0 = (nr0 + nchunk0 - 1) / nchunk0;
    const int64_t dr1 = (nr1 + nchunk1 - 1) / nchunk1;

    // The first chunk comes from our thread_id]=]
[=[
    const int64_t pair = vec_dot_num_rows;
    const int64_t dr0 = (nr0 + nchunk0*pair - 1) / (nchunk0*pair) * pair;
    const int64_t dr1 = (nr1 + nchunk1*pair - 1) / (nchunk1*pair) * pair;

    // The first chunk comes from our thread_id]=])
