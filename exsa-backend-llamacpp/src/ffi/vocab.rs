//! llama.cpp's own tokenizers, for comparison.

use super::path::c_path;
use llama_cpp_sys_2 as sys;
use std::path::Path;
use std::ptr::NonNull;

/// A vocabulary without weights.
pub(crate) struct Vocab {
    model: NonNull<sys::llama_model>,
}

impl Vocab {
    /// The vocabulary of a file.
    pub fn load(path: &Path) -> Option<Self> {
        super::init();
        let path = c_path(path).ok()?;
        // SAFETY: gives a structure by value.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.vocab_only = true;
        // SAFETY: the path ends with a NUL and outlives the call.
        NonNull::new(unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) })
            .map(|model| Self { model })
    }

    /// The ids of `text`, in which control tokens are not recognised, without BOS and EOS.
    pub fn tokenize(&self, text: &str) -> Vec<u32> {
        let mut ids = vec![0; text.len() + 16];
        // SAFETY: the model lives and its vocabulary with it; text and ids are as long as is said.
        let n = unsafe {
            let vocab = sys::llama_model_get_vocab(self.model.as_ptr());
            let (len, room) = (text.len() as i32, ids.len() as i32);
            sys::llama_tokenize(vocab, text.as_ptr().cast(), len, ids.as_mut_ptr(), room, false, false)
        };
        ids.truncate(usize::try_from(n).unwrap_or(0));
        ids.into_iter().map(|id| id as u32).collect()
    }
}

impl Drop for Vocab {
    fn drop(&mut self) {
        // SAFETY: this value owns the model.
        unsafe { sys::llama_model_free(self.model.as_ptr()) };
    }
}
