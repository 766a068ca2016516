//! Numbers of rows that come again, for backends that compile and tune by shape.

use burn::tensor::Device;

/// The least number of rows that is at least `rows` and 16, 24, 32, 48, 64, 96 and so on: at most a third of it is padding.
///
/// # Panics
/// Never for numbers of rows that fit into memory.
pub fn bucket(rows: usize) -> usize {
    let power = rows.max(16).next_power_of_two();
    let between = power / 4 * 3;
    if rows.max(16) <= between { between } else { power }
}

/// Rows of padding behind `rows` on a device ([`crate::Segments::with_padding`]): none on flex, whose kernels take any number
/// of rows alike, and elsewhere what is missing to a [`bucket`].
pub fn padding(rows: usize, device: &Device) -> usize {
    if crate::is_flex(device) { 0 } else { bucket(rows) - rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_rows_with_a_third_of_padding_at_most() {
        assert_eq!([1, 16, 17, 24, 25, 33, 49, 128, 129].map(bucket), [16, 16, 24, 24, 32, 48, 64, 128, 192]);
        for rows in 16..5000 {
            let most = bucket(rows);
            assert!(rows <= most && 3 * (most - rows) <= most, "{rows} rows in {most}");
            assert_eq!(bucket(most), most);
        }
    }
}
