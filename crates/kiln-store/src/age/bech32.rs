//! Bech32 (BIP 173), as keys of age are written, without its limit on length.

const CHARACTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// `bytes` under the prefix `hrp`, in lower case.
pub(super) fn encode(hrp: &str, bytes: &[u8]) -> String {
    let mut values = regroup(bytes.iter().copied(), 8, 5, true).expect("padding is allowed");
    let checked: Vec<u8> = expanded(hrp).chain(values.iter().copied()).chain([0; 6]).collect();
    let sum = polymod(&checked) ^ 1;
    values.extend((0..6).map(|place| (sum >> (5 * (5 - place))) as u8 & 31));
    let letters = values.iter().map(|v| char::from(CHARACTERS[usize::from(*v)]));
    [hrp, "1"].into_iter().map(str::to_owned).chain([letters.collect()]).collect()
}

/// The bytes of a text with this prefix, in lower or upper case.
pub(super) fn decode(text: &str, hrp: &str) -> Option<Vec<u8>> {
    let mixed = text.bytes().any(|b| b.is_ascii_lowercase()) && text.bytes().any(|b| b.is_ascii_uppercase());
    let lower = text.to_ascii_lowercase();
    let data = lower.strip_prefix(hrp)?.strip_prefix('1')?;
    if mixed || data.len() < 6 || data.len() > 1000 {
        return None;
    }
    let value = |b: u8| CHARACTERS.iter().position(|c| *c == b).and_then(|v| u8::try_from(v).ok());
    let values = data.bytes().map(value).collect::<Option<Vec<u8>>>()?;
    let checked: Vec<u8> = expanded(hrp).chain(values.iter().copied()).collect();
    if polymod(&checked) != 1 {
        return None;
    }
    regroup(values[..values.len() - 6].iter().copied(), 5, 8, false)
}

fn expanded(hrp: &str) -> impl Iterator<Item = u8> + '_ {
    hrp.bytes().map(|b| b >> 5).chain([0]).chain(hrp.bytes().map(|b| b & 31))
}

fn polymod(values: &[u8]) -> u32 {
    const GENERATORS: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.iter().fold(1, |sum: u32, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ u32::from(*value);
        (0..5).filter(|bit| top >> bit & 1 == 1).fold(next, |next, bit| next ^ GENERATORS[bit])
    })
}

/// Groups of `from` bits as groups of `to` bits; what does not fill one is padded, or must be zeros.
fn regroup(groups: impl Iterator<Item = u8>, from: u32, to: u32, pad: bool) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut all) = (0_u32, 0, Vec::new());
    for group in groups {
        bits = bits << from | u32::from(group);
        count += from;
        while count >= to {
            count -= to;
            all.push((bits >> count) as u8 & ((1_u32 << to) - 1) as u8);
        }
        bits &= (1 << count) - 1;
    }
    match (count, pad) {
        (0, _) => {}
        (_, true) => all.push((bits << (to - count)) as u8),
        (_, false) if count >= from || bits != 0 => return None,
        (_, false) => {}
    }
    Some(all)
}
