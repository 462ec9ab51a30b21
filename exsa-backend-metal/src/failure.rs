//! Errors of Metal.

use exsa_gpu::device::DeviceError;
use objc2_foundation::NSError;
use objc2_metal::MTLCommandBufferError;

/// An error's words.
pub(crate) fn text(error: &NSError) -> String {
    error.localizedDescription().to_string()
}

/// The error of a command buffer.
pub(crate) fn of_commands(error: Option<&NSError>) -> DeviceError {
    let Some(error) = error else {
        return DeviceError::Driver("commands failed without a reason".to_owned());
    };
    let text = text(error);
    let code = usize::try_from(error.code()).map(MTLCommandBufferError);
    match code {
        Ok(MTLCommandBufferError::DeviceRemoved | MTLCommandBufferError::AccessRevoked) => {
            DeviceError::Lost(text)
        }
        Ok(MTLCommandBufferError::OutOfMemory) => {
            DeviceError::Driver(format!("out of device memory while commands ran: {text}"))
        }
        _ => DeviceError::Driver(format!("commands failed: {text}")),
    }
}
