//! What GPUs, and processors that play one, wgpu finds on this machine.

use burn_cubecl::cubecl::wgpu::wgpu;
use std::sync::OnceLock;

/// A GPU as one graphics API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// As it names itself.
    pub name: String,
    /// The graphics API.
    pub api: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether it is more than a processor that plays a GPU.
    pub gpu: bool,
    /// Most bytes of one tensor.
    pub largest_buffer: u64,
}

/// All of them, looked up once.
pub fn adapters() -> &'static [Adapter] {
    static FOUND: OnceLock<Vec<Adapter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let found = instance.enumerate_adapters(wgpu::Backends::all());
        let found = burn_cubecl::cubecl::future::block_on(found);
        found.iter().map(described).collect()
    })
}

fn described(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    Adapter {
        gpu: info.device_type != wgpu::DeviceType::Cpu,
        name: info.name,
        api: info.backend.to_str().to_owned(),
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_owned(),
        largest_buffer: limits
            .max_buffer_size
            .min(limits.max_storage_buffer_binding_size),
    }
}
