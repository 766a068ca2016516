/** Stores a salted, stretched digest instead of the password itself. */
final class PasswordHash {
    static byte[] derive(char[] secret, byte[] salt) throws Exception {
        var spec = new javax.crypto.spec.PBEKeySpec(secret, salt, 600_000, 256);
        var factory = javax.crypto.SecretKeyFactory.getInstance("PBKDF2WithHmacSHA256");
        return factory.generateSecret(spec).getEncoded();
    }
}
