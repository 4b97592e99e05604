# ggml's threads wait for each other by spinning, however long it takes. If one of them has no CPU, because another
# program has it or because there are more threads than CPUs, the others spin in its stead: three threads on two CPUs
# compute at a hundredth of the speed of two.
#
# After a bounded time they now give their CPU away, to whoever is to be waited for as a rule. A thousand rounds are
# longer than a wait among threads that all have a CPU (benchmarks/results/ has the figures).
floatllm_patch(ggml/src/ggml-cpu/ggml-cpu.c
[=[
    while (atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed) == n_passed) {
        ggml_thread_cpu_relax();
    }
]=]
[=[
    for (int spins = 0; atomic_load_explicit(&tp->n_barrier_passed, memory_order_relaxed) == n_passed; spins++) {
        if (spins < 1000) {
            ggml_thread_cpu_relax();
        } else {
            sched_yield();
        }
    }
]=])
