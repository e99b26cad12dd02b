"""Puts the ledger into the wheel, so that ``implicitreg.explain`` works without the repository."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithLedger(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copy2("book/claims.yml", Path(self.build_lib) / "implicitreg" / "claims.yml")


setup(cmdclass={"build_py": BuildWithLedger})
