//! Panics of callbacks, which must not unwind through C++ frames.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; a panic becomes its message.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let message = message(&*panic);
        // Dropping the payload runs code of the host, which may panic again: it is leaked.
        std::mem::forget(panic);
        message
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsWhenDropped;

    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn panics_become_messages() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded::<()>(|| panic!("literal")), Err("literal".to_owned()));
        assert_eq!(guarded::<()>(|| panic!("formatted {}", 1)), Err("formatted 1".to_owned()));
        let payload = || std::panic::panic_any(PanicsWhenDropped);
        assert_eq!(guarded::<()>(payload), Err("no message".to_owned()));
    }
}
