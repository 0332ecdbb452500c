# 每个目标只调用 tools/book.py；Windows 上直接运行 py tools\book.py 命令。
PYTHON ?= python3
.PHONY: help book test check execute serve format site-test faults bench pins clean
help: ; @$(PYTHON) tools/book.py help
book: ; @$(PYTHON) tools/book.py book
test: ; @$(PYTHON) tools/book.py test
check: ; @$(PYTHON) tools/book.py check
execute: ; @$(PYTHON) tools/book.py execute $(CHAPTERS)
serve: ; @$(PYTHON) tools/book.py serve
format: ; @$(PYTHON) tools/book.py format
site-test: ; @$(PYTHON) tools/book.py site-test
faults: ; @$(PYTHON) tools/book.py faults
bench: ; @$(PYTHON) tools/book.py bench
pins: ; @$(PYTHON) tools/book.py pins
clean: ; @$(PYTHON) tools/book.py clean
