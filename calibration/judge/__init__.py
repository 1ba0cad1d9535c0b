"""Whether 8 bits are good enough and faster: roll-outs against fp32."""
