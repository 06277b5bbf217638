//! A socket's own storage.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::bpf_sk_storage_get,
};
use enforcer_abi::Socket;

use crate::maps::SOCKET;

/// The storage of `sk`, if it has one. `sk` must be non-null.
#[inline(always)]
pub(crate) fn storage<'a>(sk: *mut bpf_sock) -> Option<&'a mut Socket> {
    get(sk, ptr::null_mut(), 0)
}

/// Gives `sk` a storage with this value; `None` when the kernel can't. `sk` must be non-null.
#[inline(always)]
pub(crate) fn create_storage<'a>(sk: *mut bpf_sock, mut initial: Socket) -> Option<&'a mut Socket> {
    get(sk, &raw mut initial, u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

#[inline(always)]
fn get<'a>(sk: *mut bpf_sock, initial: *mut Socket, flags: u64) -> Option<&'a mut Socket> {
    // SAFETY: `sk` was checked for null by the caller, and the verifier checks that it was. The
    // value lives as long as the socket, which the running program holds.
    unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKET).cast_mut().cast::<c_void>(),
            sk.cast(),
            initial.cast(),
            flags,
        )
        .cast::<Socket>()
        .as_mut()
    }
}
