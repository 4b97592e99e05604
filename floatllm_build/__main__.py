from floatllm_build.cli import main

main()
