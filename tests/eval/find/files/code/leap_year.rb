# The Gregorian rule: every fourth year, not the centuries, but every fourth century.
def leap?(year)
  (year % 4).zero? && (!(year % 100).zero? || (year % 400).zero?)
end
