//! The classes that a pickle of weights may ask for. Objects of others are kept by the name of their class alone; what
//! no program keeps beside weights is refused.

use safetensors::Dtype;

/// What is made of a class when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A dictionary: what is given to its constructor is the pairs it begins with, or nothing.
    Dict,
    /// A dictionary whose constructor takes the maker of its defaults, which is not called.
    DefaultDict,
    /// A list, for sets too.
    Sequence,
    /// The sizes of a tensor, a tuple.
    Size,
    /// An object that is nothing but its attributes.
    Namespace,
    /// Where a tensor was; it is read to the host wherever that was.
    Device,
    /// An element type by itself.
    Dtype(Dtype),
    /// A storage of elements; untyped ones count bytes.
    Storage(Option<Dtype>),
    /// `(storage, offset, size, stride, …)`
    Tensor,
    /// The same with the element type in seventh place.
    TypedTensor,
    /// `(tensor, …)`
    Parameter,
    /// `(function, class, arguments, state)` of a tensor that has attributes, or is of a subclass.
    FromType,
    /// `torch.Tensor` itself.
    PlainTensor,
    /// Any other, by its place among the names in the arena.
    Foreign(u32),
}

/// Modules whose functions reach out of the program: a pickle that names one means harm.
const HARMFUL: [&[u8]; 21] = [
    b"os",
    b"nt",
    b"posix",
    b"sys",
    b"subprocess",
    b"pty",
    b"socket",
    b"shutil",
    b"runpy",
    b"builtins",
    b"__builtin__",
    b"importlib",
    b"commands",
    b"ctypes",
    b"webbrowser",
    b"code",
    b"codeop",
    b"marshal",
    b"pickle",
    b"_pickle",
    b"operator",
];

/// Whether a class is not even to be named: a function of the system, or one that loads or runs others.
pub(super) fn is_harmful(module: &[u8], name: &[u8]) -> bool {
    let package = module
        .split(|&byte| byte == b'.')
        .next()
        .unwrap_or_default();
    HARMFUL.contains(&package) || name == b"_load_from_bytes"
}

/// The table. None of these can do more than hold data: the machine builds its own values and calls nothing.
pub(super) fn class(module: &[u8], name: &[u8]) -> Option<Class> {
    Some(match (module, name) {
        (b"collections", b"OrderedDict") => Class::Dict,
        (b"collections", b"defaultdict") => Class::DefaultDict,
        (b"builtins" | b"__builtin__", b"dict") => Class::Dict,
        (b"builtins" | b"__builtin__", b"list" | b"tuple" | b"set" | b"frozenset") => {
            Class::Sequence
        }
        (b"argparse", b"Namespace") => Class::Namespace,
        (b"torch._utils", b"_rebuild_tensor" | b"_rebuild_tensor_v2") => Class::Tensor,
        (b"torch._utils", b"_rebuild_tensor_v3") => Class::TypedTensor,
        (b"torch._utils", b"_rebuild_parameter") => Class::Parameter,
        (b"torch._tensor", b"_rebuild_from_type_v2") => Class::FromType,
        (b"torch", b"Tensor") | (b"torch.nn.parameter", b"Parameter" | b"Buffer") => {
            Class::PlainTensor
        }
        (b"torch", b"Size") => Class::Size,
        (b"torch", b"device") => Class::Device,
        (b"torch" | b"torch.storage", b"UntypedStorage") => Class::Storage(None),
        (b"torch", name) => match name.strip_suffix(b"Storage") {
            Some(element) => Class::Storage(Some(storage(element)?)),
            None => Class::Dtype(dtype(name)?),
        },
        _ => return None,
    })
}

/// The element type of `torch.FloatStorage` and its like, by the word before `Storage`.
fn storage(element: &[u8]) -> Option<Dtype> {
    Some(match element {
        b"Double" => Dtype::F64,
        b"Float" => Dtype::F32,
        b"Half" => Dtype::F16,
        b"BFloat16" => Dtype::BF16,
        b"Long" => Dtype::I64,
        b"Int" => Dtype::I32,
        b"Short" => Dtype::I16,
        b"Char" => Dtype::I8,
        b"Byte" => Dtype::U8,
        b"Bool" => Dtype::BOOL,
        _ => return None,
    })
}

/// The element type of `torch.float32` and its like.
fn dtype(name: &[u8]) -> Option<Dtype> {
    Some(match name {
        b"float64" | b"double" => Dtype::F64,
        b"float32" | b"float" => Dtype::F32,
        b"float16" | b"half" => Dtype::F16,
        b"bfloat16" => Dtype::BF16,
        b"uint64" => Dtype::U64,
        b"int64" | b"long" => Dtype::I64,
        b"uint32" => Dtype::U32,
        b"int32" | b"int" => Dtype::I32,
        b"uint16" => Dtype::U16,
        b"int16" | b"short" => Dtype::I16,
        b"int8" => Dtype::I8,
        b"uint8" => Dtype::U8,
        b"bool" => Dtype::BOOL,
        b"float8_e4m3fn" => Dtype::F8_E4M3,
        b"float8_e5m2" => Dtype::F8_E5M2,
        _ => return None,
    })
}
