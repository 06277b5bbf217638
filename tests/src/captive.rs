//! A running process made to try system calls, with exactly the rights that it has.

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// Length of the `syscall` instruction.
const SYSCALL: u64 = 2;

/// A traced process, killed when dropped: it would not survive what was done to it.
#[derive(Debug)]
pub struct Captive {
    process: Pid,
}

impl Captive {
    /// Takes hold of the main thread of a process, at its next system call. All calls must come
    /// from the thread that did this.
    pub fn new(pid: u32) -> Result<Self> {
        let captive = Self {
            process: Pid::from_raw(i32::try_from(pid).context("a process id")?),
        };
        // Stops at system calls are told from others.
        ptrace::seize(captive.process, Options::PTRACE_O_TRACESYSGOOD).context("seize")?;
        ptrace::interrupt(captive.process).context("interrupt")?;
        waitpid(captive.process, Some(WaitPidFlag::__WALL)).context("wait for it")?;
        captive.advance()?;
        Ok(captive)
    }

    /// Makes it do a system call in place of the one that it is about to make; `Err` inside is
    /// how the kernel refused it.
    pub fn call(&self, number: u64, arguments: [u64; 6]) -> Result<Result<u64, Errno>> {
        let mut registers = ptrace::getregs(self.process).context("read the registers")?;
        registers.orig_rax = number;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = arguments;
        ptrace::setregs(self.process, registers).context("write the registers")?;
        self.advance()?;

        let mut registers = ptrace::getregs(self.process).context("read the registers")?;
        let result = registers.rax;
        // Back to the instruction that made the call, for the next one.
        registers.rip -= SYSCALL;
        ptrace::setregs(self.process, registers).context("write the registers")?;
        self.advance()?;
        Ok(match i32::try_from(-result.cast_signed()) {
            Ok(errno @ 1..4096) => Err(Errno::from_raw(errno)),
            _ => Ok(result),
        })
    }

    /// Lets it go on to its next entry to or exit from a system call.
    fn advance(&self) -> Result<()> {
        ptrace::syscall(self.process, None).context("let it go on")?;
        match waitpid(self.process, Some(WaitPidFlag::__WALL)).context("wait for it")? {
            WaitStatus::PtraceSyscall(_) => Ok(()),
            other => bail!("it did not stop at a system call: {other:?}"),
        }
    }
}

impl Drop for Captive {
    fn drop(&mut self) {
        // Fails only if it is gone.
        let _ = ptrace::kill(self.process);
    }
}
