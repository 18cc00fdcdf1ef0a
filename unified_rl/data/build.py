"""`python -m unified_rl.data.build`: the command `unified_rl.build_data`, found where data is.

Nothing is imported from above; Python runs the command as if it had been named.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("unified_rl.build_data", run_name="__main__", alter_sys=True)
