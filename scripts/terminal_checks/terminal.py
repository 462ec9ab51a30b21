"""A terminal of 80 columns, by tmux on a socket of its own."""

import os
import subprocess
import time

# Time after which a text that does not appear is missing: a debug build on a busy machine is slow.
PATIENCE = 120


class Terminal:
    """A shell in a terminal."""

    def __init__(self, folder, environment):
        self.socket = os.path.join(folder, "tmux")
        self.environment = dict(os.environ, **environment)
        shell = "env PS1='$ ' TERM=xterm-256color bash --norc --noprofile"
        self.tmux("new-session", "-d", "-x", "80", "-y", "40", shell)
        self.tmux("set-option", "-g", "history-limit", "5000")
        self.expect("$")

    def tmux(self, *arguments):
        command = ["tmux", "-S", self.socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def type(self, text):
        """Types a line."""
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def key(self, key):
        self.tmux("send-keys", key)

    def clear(self):
        """An empty screen, at a prompt of the shell."""
        self.type("clear")
        self.tmux("clear-history")
        time.sleep(0.2)

    def screen(self):
        return self.tmux("capture-pane", "-p", "-J", "-S", "-2000")

    def lines_max(self):
        """Columns of the longest line that the terminal shows."""
        return max((len(line) for line in self.tmux("capture-pane", "-p").splitlines()), default=0)

    def expect(self, text, times=1):
        """Waits until the text is there so often."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            screen = self.screen()
            if screen.count(text) >= times:
                return screen
            time.sleep(0.1)
        raise AssertionError(f"'{text}' did not appear on the screen:\n{self.screen()}")

    def run(self, command):
        """Runs a command to its end. Returns the screen and the exit code."""
        self.clear()
        self.type(f"{command}; echo \"code:$?:\"")
        return self.code()

    def code(self):
        """Waits for the end of the command. The typed line has the variable, not its value."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            screen = self.screen()
            for part in screen.split("code:")[1:]:
                digits = part.split(":")[0]
                if digits.isdigit():
                    return screen, int(digits)
            time.sleep(0.1)
        raise AssertionError(f"the command did not end:\n{self.screen()}")

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)
