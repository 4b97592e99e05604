# libllama maps a model's file and has the system read all of it ahead. For a device that reads the file itself that
# is a minute for each 100 GB, and memory that the weights then have to be pushed out of.
#
# Such a device says so by a function that its registry knows by name. Nothing changes for any other.
floatllm_patch(src/llama-model.cpp
[=[
    ml.init_mappings(true, use_mlock ? &pimpl->mlock_mmaps : nullptr);
]=]
[=[
    bool prefetch = true;
    for (const auto & dev : devices) {
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(dev.dev);
        if (reg && ggml_backend_reg_get_proc_address(reg, "ggml_backend_reads_files")) {
            prefetch = false;
        }
    }
    ml.init_mappings(prefetch, use_mlock ? &pimpl->mlock_mmaps : nullptr);
]=])
