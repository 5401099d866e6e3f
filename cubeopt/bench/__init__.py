"""What things cost, measured beside what they stand for or are part of."""
