//! Golden data of the reference implementation.

use std::path::PathBuf;

use safetensors::SafeTensors;

/// The bytes of a fixture; `None`, with the reason printed, when fixtures are absent and nobody insists on them.
pub fn read(name: &str) -> Option<Vec<u8>> {
    let insisted = std::env::var_os("TESSERA_FIXTURES").map(PathBuf::from);
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let path = insisted.clone().unwrap_or_else(beside).join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(why) if insisted.is_some() => {
            panic!("TESSERA_FIXTURES is set, but {}: {why}", path.display())
        }
        Err(why) => {
            println!("skipped: {}: {why}", path.display());
            None
        }
    }
}

/// A float tensor, flat.
pub fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().chunks_exact(4);
    data.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect()
}

/// A tensor of indices, flat.
pub fn indices(file: &SafeTensors, name: &str) -> Vec<u16> {
    let data = file.tensor(name).unwrap().data().chunks_exact(8);
    data.map(|bytes| u16::try_from(i64::from_le_bytes(bytes.try_into().unwrap())).unwrap())
        .collect()
}
