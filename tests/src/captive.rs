//! A running process made to try system calls, with exactly the rights that it has.

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::Signal,
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
        ptrace::attach(captive.process).context("attach")?;
        captive.stop()?;
        captive.advance()?;
        Ok(captive)
    }

    /// Makes it do a system call; `Err` inside is how the kernel refused it.
    pub fn call(&self, number: u64, arguments: [u64; 6]) -> Result<Result<u64, Errno>> {
        let mut registers = ptrace::getregs(self.process).context("read the registers")?;
        // From wherever it stands in its current call, back to the instruction that made it.
        registers.rip -= SYSCALL;
        registers.rax = number;
        registers.orig_rax = u64::MAX;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = arguments;
        ptrace::setregs(self.process, registers).context("write the registers")?;
        loop {
            self.advance()?;
            let registers = ptrace::getregs(self.process).context("read the registers")?;
            let result = registers.rax.cast_signed();
            // On entry it is `ENOSYS`, until the call has been made.
            if registers.orig_rax == number && result != -i64::from(Errno::ENOSYS as i32) {
                return Ok(match i32::try_from(-result) {
                    Ok(errno @ 1..4096) => Err(Errno::from_raw(errno)),
                    _ => Ok(registers.rax),
                });
            }
        }
    }

    fn advance(&self) -> Result<()> {
        ptrace::syscall(self.process, None).context("let it go on")?;
        self.stop()
    }

    fn stop(&self) -> Result<()> {
        match waitpid(self.process, Some(WaitPidFlag::__WALL)).context("wait for it")? {
            WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP) => Ok(()),
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
