//! What to try after an error of the library, which knows no flags.

use tessera::Error;

/// The flag that helps, if one does.
pub fn of(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(Error::NoTokenizer { .. }) = cause.downcast_ref() {
            return Some("give its tokenizer with --vae");
        }
        if let Some(Error::DataType { .. }) = cause.downcast_ref() {
            return Some("give another --dtype or --device");
        }
        match cause.downcast_ref() {
            Some(tessera::tokenizers::Error::NoRoom { .. }) => {
                Some("give more --max-vram, or another --device")
            }
            _ => None,
        }
    })
}
