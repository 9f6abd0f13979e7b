//! A container's links and read-only mounts, by ``shimd/engines/contained.c``.

use std::ffi::{CString, c_int};

/// Its function; ``None``: no C compiler was there when shimd was installed.
#[derive(Clone, Copy)]
pub struct Contained(Option<unsafe extern "C" fn() -> c_int>);

impl Contained {
    pub fn of(library: &str) -> Result<Self, String> {
        if library.is_empty() {
            return Ok(Self(None));
        }
        let path = CString::new(library).map_err(|error| error.to_string())?;
        let opened = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if opened.is_null() {
            return Err(format!("{library} cannot be loaded"));
        }
        let function = unsafe { libc::dlsym(opened, c"shimd_contained".as_ptr()) };
        if function.is_null() {
            return Err(format!("{library} has no shimd_contained"));
        }
        Ok(Self(Some(unsafe { std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn() -> c_int>(function) })))
    }

    /// From now on, in this process; where the kernel cannot do it, links stay refused.
    pub fn enter(self) {
        if let Some(function) = self.0 {
            let _ = unsafe { function() };
        }
    }
}
