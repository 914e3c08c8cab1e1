// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions that the header declares and that are not there yet.

use std::ffi::c_int;

use crate::status::{Failure, Status, enter};

macro_rules! pending {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            enter(stringify!($name), || {
                Err::<Status, _>(Failure::new(Status::Internal, "this function is not there yet"))
            })
        }
    )*};
}

pending! {
    rsshm_reader_send_message rsshm_reader_get_event rsshm_writer_event
    rsshm_writer_next_message
}
