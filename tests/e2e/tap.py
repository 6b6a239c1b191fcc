"""unittest that speaks TAP."""
import unittest


def sanitized(program):
    """Whether a program was built with a sanitizer of memory or threads."""
    with open(program, "rb") as f:
        code = f.read()
    return b"__asan_init" in code or b"__tsan_init" in code


class TapResult(unittest.TestResult):
    count = 0

    def line(self, word, test, more=""):
        self.count += 1
        print(f"{word} {self.count} - {test.id().removeprefix('__main__.')}{more}", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.line("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.line("ok", test, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.line("not ok", test)
        print(*("# " + line[:1000] for line in self.failures[-1][1].splitlines()), sep="\n")

    def addError(self, test, err):
        super().addError(test, err)
        self.line("not ok", test)
        print(*("# " + line[:1000] for line in self.errors[-1][1].splitlines()), sep="\n")


class TapRunner:
    def run(self, test):
        print(f"1..{test.countTestCases()}")
        result = TapResult()
        test.run(result)
        return result
