//! What the kernel says of a TCP connection.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// `TCP_CLOSE` of the kernel's `tcp_states.h`. A socket in `TIME_WAIT` counts as closed too.
const CLOSED: u8 = 7;

/// Whether both ends have closed and everything is acknowledged, or the connection was reset.
///
/// # Errors
/// If the socket is no TCP socket.
pub fn is_closed(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // The first field of `tcp_info` is the state; the kernel writes no more than there is room for.
    let mut state = 0_u8;
    let mut size: libc::socklen_t = 1;
    #[expect(unsafe_code, reason = "no library that is here reads TCP_INFO")]
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most `size`
    // bytes to `state`, which has one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut state).cast(),
            std::ptr::from_mut(&mut size),
        )
    };
    if result == 0 {
        Ok(state == CLOSED)
    } else {
        Err(io::Error::last_os_error())
    }
}
