# For a single position ggml's attention divides a long context among the threads, and adds up what each found. The
# sum of another division is another number, so the same model gave other numbers with another number of threads.
#
# The parts are now always eight. So the numbers are the same on machines with more or fewer CPUs, and threads may
# come and go while a model runs.
floatllm_patch(ggml/src/ggml-cpu/ops.cpp
[=[
        const int64_t chunk_size = (nek1 + nth - 1) / nth;

        // Partials buffer]=]
[=[
        const int64_t n_chunks   = 8; // as the plan of the work buffer has it
        const int64_t chunk_size = (nek1 + n_chunks - 1) / n_chunks;

        // Partials buffer]=])
floatllm_patch(ggml/src/ggml-cpu/ops.cpp
[=[
        const int64_t ic_start = ith * chunk_size;
        const int64_t ic_end   = std::min(ic_start + chunk_size, nek1);

        const int64_t partial_stride = nth * partial_size;
        float *       chunk_partials = partials_base + ith * partial_size;

        if (ic_start < nek1) {
            for (int64_t q_head = 0; q_head < neq2; q_head++) {
                ggml_compute_forward_flash_attn_ext_f16_one_chunk(
                    params, dst, q_head, q_head + 1, ic_start, ic_end,
                    chunk_partials, partial_stride);
            }
        } else {
            for (int64_t q_head = 0; q_head < neq2; q_head++) {
                float * q_partials = chunk_partials + q_head * partial_stride;
                q_partials[0] = -INFINITY;  // M
                q_partials[1] = 0.0f;       // S
            }
        }

        ggml_barrier(params->threadpool);
        ggml_flash_attn_ext_reduce_partials(params, dst, nth, chunk_size);
]=]
[=[
        const int64_t partial_stride = n_chunks * partial_size;

        for (int64_t item = ith; item < neq2 * n_chunks; item += nth) {
            const int64_t chunk    = item / neq2;
            const int64_t q_head   = item % neq2;
            const int64_t ic_start = chunk * chunk_size;
            const int64_t ic_end   = std::min(ic_start + chunk_size, nek1);

            // what begins behind the end is left out of the sum
            if (ic_start < nek1) {
                ggml_compute_forward_flash_attn_ext_f16_one_chunk(
                    params, dst, q_head, q_head + 1, ic_start, ic_end,
                    partials_base + chunk * partial_size, partial_stride);
            }
        }

        ggml_barrier(params->threadpool);
        ggml_flash_attn_ext_reduce_partials(params, dst, n_chunks, chunk_size);
]=])
floatllm_patch(ggml/src/ggml-cpu/ggml-cpu.c
[=[
                        // Decode path: n_kv_chunks = n_tasks (one chunk per thread)
]=]
[=[
                        // Decode path: a fixed number of chunks, shared among the threads
]=])
floatllm_patch(ggml/src/ggml-cpu/ggml-cpu.c
[=[
                        size_t n_chunks = n_tasks;
                        size_t decode   =]=]
[=[
                        size_t n_chunks = 8; // as the operation divides it
                        size_t decode   =]=])
