"""NVRTC through ctypes."""
import ctypes


class Nvrtc:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def _read(self, program, what):
        size = ctypes.c_size_t()
        if getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) != 0:
            return b""
        buffer = ctypes.create_string_buffer(max(size.value, 1))
        getattr(self.library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw[: size.value]

    def compile(self, source, name, *options):
        """(whether it compiled, the log, PTX, machine code)."""
        program = ctypes.c_void_p()
        create = self.library.nvrtcCreateProgram
        if create(ctypes.byref(program), source.encode(), name.encode(), 0, None, None) != 0:
            raise RuntimeError("NVRTC makes no program")
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        compiled = self.library.nvrtcCompileProgram(program, len(options), array) == 0
        log = self._read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
        ptx = self._read(program, "PTX").rstrip(b"\0").decode() if compiled else ""
        code = self._read(program, "CUBIN") if compiled else b""
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return compiled, log, ptx, code
