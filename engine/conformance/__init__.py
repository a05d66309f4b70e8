r"""Tests that every task, attack and artifact kind must pass: ours, and those of your own.

    python -m pytest -p engine.conformance.plugin --pyargs engine.conformance \
        --own my_package.my_task

tests a module of your own, whichever of the three it is.
"""
