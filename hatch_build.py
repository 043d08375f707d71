"""Compiles the kernels while the package is built or installed. Without a compiler the package is pure Python."""

import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):
    """Hatchling calls `initialize` before it packs a wheel or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            made = self.compile()
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"spikeback: no compiled kernels, PyTorch's operations instead: {reason}")
            return
        for path in made:
            build_data["force_include"][str(path)] = str(path.relative_to(Path(self.root) / "src"))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def compile(self) -> list[Path]:
        """Run ops/native/build.py, alone: the package's own imports need PyTorch."""
        path = Path(self.root, "src/spikeback/ops/native/build.py")
        spec = importlib.util.spec_from_file_location("build", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.build()
