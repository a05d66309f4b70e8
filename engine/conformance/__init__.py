"""What every task, attack and artifact kind is held to: ours, and one of your own.

    python -m pytest -p engine.conformance.plugin --pyargs engine.conformance --own my_package.my_task

tries a module, whatever of the three it is.
"""
