package org.pytorch.executorch;

import java.nio.FloatBuffer;

/** Interface stub of the class of that name in executorch-android, after its documentation: to compile against, never shipped. */
public abstract class Tensor {
  private Tensor() {}

  public static Tensor fromBlob(FloatBuffer data, long[] shape) {
    throw new UnsupportedOperationException("stub");
  }

  public long[] shape() {
    throw new UnsupportedOperationException("stub");
  }

  public void copyDataInto(FloatBuffer target) {
    throw new UnsupportedOperationException("stub");
  }
}
