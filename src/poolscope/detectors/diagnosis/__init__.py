"""Why a pool is exhausted: what it had to carry, who holds its connections, and the cause that follows."""
