//! Dequantized blocks against checksums computed by other implementations (`tools/quant_vectors.py`), and
//! mismatching lengths.

use exsa_core::gguf::GgmlType;
use exsa_quant::{QuantError, dequantize};

mod support;
use support::{SplitMix64, every_type};

/// CRC-32 (IEEE 802.3) of `bytes`.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn values_have_the_bits_of_the_reference() {
    let vectors = include_str!("data/dequantize.txt");
    let mut tested = Vec::new();
    for line in vectors.lines() {
        let [name, blocks, finite, crc] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let dtype = every_type().find(|dtype| dtype.name() == name).unwrap();
        let block_bytes = dtype.block_bytes() as usize;
        let blocks: usize = blocks.parse().unwrap();
        let mut bytes = SplitMix64::new(dtype.id().into()).bytes(blocks * block_bytes);
        for block in bytes.chunks_exact_mut(block_bytes) {
            finite.split(',').filter_map(|at| at.parse::<usize>().ok()).for_each(|at| block[at] &= 0xbf);
        }
        let mut values = vec![0.0; blocks * dtype.block_len() as usize];
        dequantize(dtype, &bytes, &mut values).unwrap();
        let found = crc32(values.iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(format!("{found:08x}"), crc, "{name}, first values {:?}", &values[..values.len().min(8)]);
        tested.push(dtype);
    }
    let untested: Vec<_> = every_type().filter(|dtype| !tested.contains(dtype)).collect();
    let integers = [GgmlType::I8, GgmlType::I16, GgmlType::I32, GgmlType::I64];
    let others = [GgmlType::F32, GgmlType::F64, GgmlType::Q8_1, GgmlType::Q8K];
    assert!(untested.iter().all(|dtype| integers.contains(dtype) || others.contains(dtype)), "{untested:?}");
}

#[test]
fn activation_types_and_plain_numbers() {
    let mut out = [0.0; 2];
    let bytes: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    dequantize(GgmlType::F32, &bytes, &mut out).unwrap();
    assert_eq!(out, [1.5, -2.0]);
    let bytes: Vec<u8> = [0.1f64, -4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    dequantize(GgmlType::F64, &bytes, &mut out).unwrap();
    assert_eq!(out, [0.1f32, -4.0]);

    // Q8_1 has the sum of its values between scale and values, Q8_K a scale of 32 bits and sums at the end.
    let mut block = vec![0x00, 0x34, 0xff, 0x7b];
    block.extend((0..32).map(|i| (i - 16) as u8));
    let mut out = [0.0; 32];
    dequantize(GgmlType::Q8_1, &block, &mut out).unwrap();
    assert_eq!((out[0], out[31]), (-4.0, 3.75));
    let mut block = 0.5f32.to_le_bytes().to_vec();
    block.extend((0..256).map(|i| i as u8));
    block.extend([0x11; 32]);
    let mut out = [0.0; 256];
    dequantize(GgmlType::Q8K, &block, &mut out).unwrap();
    assert_eq!((out[1], out[127], out[128], out[255]), (0.5, 63.5, -64.0, -0.5));
}

#[test]
fn lengths_and_types_are_checked() {
    let dtype = GgmlType::Q4K;
    let refused = dequantize(dtype, &[0; 144], &mut [0.0; 255]).unwrap_err();
    assert_eq!(refused, QuantError::PartialBlock { dtype, values: 255 });
    assert_eq!(refused.to_string(), "255 values are not whole blocks; Q4_K has blocks of 256");
    let refused = dequantize(dtype, &[0; 143], &mut [0.0; 256]).unwrap_err();
    assert_eq!(refused.to_string(), "256 values of Q4_K take 144 bytes, not 143");
    let refused = dequantize(GgmlType::I32, &[0; 4], &mut [0.0; 1]).unwrap_err();
    assert_eq!(refused, QuantError::NotWeights(GgmlType::I32));
    for dtype in every_type() {
        assert_eq!(
            dequantize(dtype, &[], &mut []).is_ok(),
            !dtype.name().starts_with('I') || dtype.name().starts_with("IQ")
        );
    }
}

#[test]
fn any_bytes_dequantize() {
    let mut random = SplitMix64::new(7);
    for dtype in every_type() {
        for blocks in 0..3 {
            let bytes = random.bytes(blocks * dtype.block_bytes() as usize);
            let mut out = vec![0.0; blocks * dtype.block_len() as usize];
            // Integer types are refused; no bytes of the others are wrong.
            let _ = dequantize(dtype, &bytes, &mut out);
            let longer = [&bytes[..], &[0]].concat();
            assert!(dequantize(dtype, &longer, &mut out).is_err(), "{dtype}");
        }
    }
}
