-- Prime numbers, each found by crossing out the multiples of the ones before.
primes :: [Int]
primes = go [2 ..] where go (p : rest) = p : go [n | n <- rest, n `mod` p /= 0]
