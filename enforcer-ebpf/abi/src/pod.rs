//! The layouts as plain old data for aya's maps.

use crate::{Activity, Binding, Connection, Control, Session, Socket, Stats};

macro_rules! pod {
    ($($layout:ty),+) => {
        $(
            #[expect(unsafe_code, reason = "aya asks for the promise that the type is plain data")]
            // SAFETY: `repr(C)`, integers only, every padding byte an explicit field.
            unsafe impl aya::Pod for $layout {}
        )+
    };
}

pod!(
    Activity, Binding, Connection, Control, Session, Socket, Stats
);
